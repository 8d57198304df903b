"""An OpenAI-compatible endpoint on the device."""
