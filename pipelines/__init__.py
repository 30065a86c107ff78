"""The programs."""

import model_zoo  # noqa: F401  installs the import hook for torchvision before a program imports diffusers or transformers
