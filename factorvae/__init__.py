"""FactorVAE (Kim & Mnih 2018, arXiv 1802.05983): model, training, data and metrics."""

__version__ = "0.1.0"
