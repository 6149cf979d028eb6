# SPDX-License-Identifier: Apache-2.0
"""SemanIR as an architecture of spandrel, so that ComfyUI, chaiNNer and kin load our files."""

from __future__ import annotations

from common_kernels.runtime.hub import ModelNotFoundError

try:
    from spandrel import (
        MAIN_REGISTRY,
        Architecture,
        ArchRegistry,
        ArchSupport,
        ImageModelDescriptor,
        StateDict,
    )
except ImportError as error:  # pragma: no cover - the test environment has the extra
    raise ImportError('this needs spandrel: pip install "semanir[spandrel]"') from error

from semanir.config import SemanIRConfig
from semanir.model import SemanIR
from semanir.weights import CONFIG_TENSOR, decode_config

ID = "SemanIR"


class SemanIRArch(Architecture[SemanIR]):
    """Architecture of spandrel: a file is known by the configuration that stands among its tensors."""

    def __init__(self) -> None:
        super().__init__(id=ID, detect=_is_ours)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[SemanIR]:
        """Build the network.

        Raises:
            ModelNotFoundError: If the configuration is damaged.
        """
        try:
            config = SemanIRConfig.from_dict(decode_config(state_dict[CONFIG_TENSOR], "the file"))
        except (ValueError, TypeError) as error:
            raise ModelNotFoundError(f"the file holds no SemanIR configuration: {error}") from error
        return ImageModelDescriptor(
            SemanIR(config),
            state_dict,
            architecture=self,
            purpose="Restoration" if config.upscale == 1 else "SR",
            tags=[
                config.architecture,
                f"{config.embed_dims[0]}dim",
                f"w{config.window_size}",
                f"k{config.k}",
            ],
            supports_half=False,
            supports_bfloat16=True,
            scale=config.upscale,
            input_channels=config.in_channels,
            output_channels=config.out_channels,
        )


def register(registry: ArchRegistry = MAIN_REGISTRY) -> None:
    """Make a registry of spandrel know SemanIR; the main one serves every program of this process.

    Example:
        >>> register()
        >>> ID in MAIN_REGISTRY
        True
    """
    # asked first: its sign is certain, while others guess by common names of layers
    others = tuple(each.architecture.id for each in registry)
    registry.add(ArchSupport.from_architecture(SemanIRArch(), before=others), ignore_duplicates=True)


def _is_ours(state_dict: StateDict) -> bool:
    return CONFIG_TENSOR in state_dict
