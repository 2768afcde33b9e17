"""FactorVAE (Kim & Mnih 2018, arXiv 1802.05983): the model, its training, its data and its metrics."""

__version__ = "0.1.0"
