"""The short trainings whose losses `unmoved.py` compares: every network, what a recipe may be asked for, and kinds of augmentation."""

SMALL = ("patch_size=32,32", "batch_size=2", "iterations_per_epoch=2", "amp=off")
UTNET = (
    "base_channels=4 levels=3 block_list=1,2 num_blocks=1,1 num_heads=2,2 reduce_size=4 projection=interp "
    "relative_position=2d-bias attention_dropout=0.1 aux_loss=true"
)
RESNET = "resnet_width=4 resnet_units=2,1,1"
NETWORKS = {
    "UTNet": UTNET,
    "UTNet_encoder": UTNET,
    "ResUNet": "base_channels=4 levels=3 aux_loss=true",
    "UNet": "base_channels=4 levels=3 aux_loss=true",
    "AttentionUNet": "base_channels=4 levels=3 aux_loss=true",
    "CBAM_UNet": "base_channels=4 levels=3 aux_loss=true",
    "DualAttention_UNet": "base_channels=4 levels=3 aux_loss=true",
    "ResNet50_UNet": f"{RESNET} aux_loss=true",
    "ResNet50_UTNet": f"{RESNET} reduce_size=4 projection=interp relative_position=2d-bias aux_loss=true",
    "TransUNet": f"{RESNET} hidden_size=16 transformer_layers=2 attention_heads=2 mlp_size=24 "
    "decoder_channels=16,8,8,8,4 aux_loss=true",
    "SwinUNet": "embed_channels=8 depths=2,1 window_heads=2,4 mlp_ratio=1 aux_loss=true",
    "MedFormer": "base_channels=4 attention_blocks=1 fusion_depth=1 aux_loss=true",
    "nnUNet": "base_channels=4 aux_loss=true",
    "FCN": "base_channels=4 aux_loss=true",
}
# What a training may be asked for beside a network: name → (network, settings, words of the command line).
VARIANTS = {
    "weight_average": ("UNet", "weight_average=0.1", ""),
    "bfloat16": ("UNet", "amp=bfloat16", ""),
    "adamw": ("UNet", "optimizer.name=adamw", ""),
    "one_output": ("UNet", "network.aux_loss=false", ""),
    "only_cross_entropy": ("UNet", "loss.dice_weight=0", ""),
    "fold0": ("UNet", "", "fold0"),
    "vendor=A": ("UNet", "", "vendor=A"),
    "vendor!=A": ("UNet", "", "vendor!=A"),
    "other_seed": ("UNet", "", "--seed 7"),
    "from_weights": ("UNet", "", "--weights {run}"),
    "without_attention": ("UTNet", "network.block_list=[] network.num_blocks=[] network.num_heads=[]", ""),
    "maxpool_1d-qk": ("UTNet", "network.projection=maxpool network.relative_position=1d-qk", ""),
    "no_positions": ("UTNet", "network.relative_position=none network.attention_dropout=0", ""),
    "decoder_strided": (
        "UTNet",
        "network.base_channels=8 network.attention_in=decoder network.downsampling=strided",
        "",
    ),
    "residual": ("nnUNet", "network.architecture=residual", ""),
}
KINDS = (
    "rotation",
    "scale",
    "noise",
    "brightness",
    "contrast",
    "gamma",
    "blur",
    "resolution",
    "histogram",
)
TRAINED = {
    "UNet": "network.base_channels=8 network.levels=2",
    "UTNet": "network.base_channels=8 network.levels=2 network.block_list=1 network.reduce_size=4",
}
