"""The recipe of Transformers (TransUNet, SwinUNet, MedFormer): AdamW, with layer-wise decay of the learning rate from pretrained weights.

Sources: peak 5e-4, betas .9 and .999, weight decay .05: the published ACDC settings of all three in the 2-D benchmark of UTNet's
authors (CBIM-Medical-Image-Segmentation). No decay of biases, norms and position tables, and clipping at 5: Swin Transformer (Liu et
al., ICCV 2021). Layer-wise decay .75 where the run starts from weights: BEiT (Bao et al., ICLR 2022) and MAE (He et al., CVPR 2022)
fine-tune ViT-B so. Warm-up of 20 epochs: Swin; that it is at most a tenth of the schedule is ours, for runs of few epochs.
"""

from utseg.training.recipe import OptimizerSettings, Recipe, ScheduleSettings


def recipe(network_name: str) -> Recipe:
    """The recipe for one network."""
    return Recipe(
        network_name=network_name,
        optimizer=OptimizerSettings(
            name="adamw", learning_rate=5e-4, weight_decay=0.05, pretrained_layer_decay=0.75
        ),
        schedule=ScheduleSettings(warmup_epochs=20, warmup_largest_share=0.1),
        gradient_clip_norm=5.0,
    )
