"""A trainer that nnUNetv2_train finds through `nnUNet_extTrainer`, short enough for a CPU."""

import torch
from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import (
    nnUNetTrainer_5epochs,
)


class ShortTrainer(nnUNetTrainer_5epochs):
    """nnU-Net's trainer of five epochs; an epoch has 40 steps instead of 250."""

    # nnU-Net reads the names of these from the signature.
    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict,
        device: torch.device,
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = 40
        self.num_val_iterations_per_epoch = 2

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing: it changes no weight, and how good the network is does not matter here."""
