"""Rolling policies out and writing what happened."""
