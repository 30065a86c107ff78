"""A configuration of Sapiens 2, tiny."""


def tiny_sapiens2(outputs: int):
    from transformers import Sapiens2Config

    head = {"upsample_out_channels": [16, 16], "conv_out_channels": [16]}
    return Sapiens2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_attention_heads=2,
        num_first_full_attention_layers=1,
        num_last_full_attention_layers=1,
        image_size=[64, 48],
        num_register_tokens=2,
        num_labels=outputs,
        initializer_range=0.5,
        head_config=head,
    )
