"""Ray clusters: access to their job servers, jobs, the code that is sent, and sweeps that are fetched."""
