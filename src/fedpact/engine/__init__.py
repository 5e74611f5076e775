"""Who runs a cohort's clients: engines, the sampler, and the loop over rounds."""
