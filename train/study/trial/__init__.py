"""A trial of a claim: trains its networks, measures them, and says whether the claim was seen."""
