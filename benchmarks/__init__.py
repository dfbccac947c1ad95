"""MEASURE AND PRICE any OpenAI-compatible URL. Speaks HTTP only; knows nothing of serving."""
