"""Code that exists for speed only: each module gives the results of the plain version to rounding."""
