"""`python -m parity gpu-report`: all that needs an accelerator, in one command and one report."""
