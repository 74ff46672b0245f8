"""DietNeRF for nerfstudio: few-shot radiance fields with a semantic consistency loss."""

__version__ = "0.2.0"
