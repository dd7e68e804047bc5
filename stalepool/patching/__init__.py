"""The way into urllib3: seeing each copy being loaded, replacing four functions, undoing it."""
