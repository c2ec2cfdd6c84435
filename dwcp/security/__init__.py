"""The one place that builds TLS contexts and checks names."""
