"""The `vla-lens` command: one thin file a sub-command."""
