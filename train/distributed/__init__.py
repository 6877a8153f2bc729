"""Several processes of one run: which there are, how they are asked to stop and started here."""
