"""The tutorial's claims as experiments, one file each: `run(settings) -> records`, `plot(records) -> figure`."""
