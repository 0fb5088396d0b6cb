"""Ray clusters as people name them: access, jobs, the code that is sent there, sweeps that are brought home."""
