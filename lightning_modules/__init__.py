"""Lightning modules that question latents, with their metrics, figures and reports."""
