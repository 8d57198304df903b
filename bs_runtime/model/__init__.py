"""The target model: loading, packed forwards, attention, the KV cache."""
