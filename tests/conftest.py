"""What several test files share."""

import pytest
import torch

from factorvae.datasets import load_dataset


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks run fastest so, and beside other work many times faster."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def full_data_dir(tmp_path_factory):
    """A data directory with all of dSprites drawn, for running the scripts as a user would."""
    data_dir = tmp_path_factory.mktemp("full_data")
    load_dataset("dsprites", data_dir)
    return data_dir
