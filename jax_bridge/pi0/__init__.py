"""π0 and π0.5 in JAX, with latents captured inside the compiled sampler."""

from jax_bridge.pi0.capture import CaptureSpec
from jax_bridge.pi0.checkpoint import load_params, save_params
from jax_bridge.pi0.config import ExpertConfig, Pi0Config, VisionConfig
from jax_bridge.pi0.infer_config import infer_config
from jax_bridge.pi0.model import Pi0
from jax_bridge.pi0.observation import Observation
from jax_bridge.pi0.parameters import cast_params, check_params, param_shapes, params_digest

__all__ = [
    "CaptureSpec",
    "ExpertConfig",
    "Observation",
    "Pi0",
    "Pi0Config",
    "VisionConfig",
    "cast_params",
    "check_params",
    "infer_config",
    "load_params",
    "param_shapes",
    "params_digest",
    "save_params",
]
