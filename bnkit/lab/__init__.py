"""The science done with the library: experiments, their report, and benchmarks; only the command line imports it."""
