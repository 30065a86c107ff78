"""Human parsing and matting."""
