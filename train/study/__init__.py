"""Many runs that answer one question: networks compared, and what papers claim of capsules."""
