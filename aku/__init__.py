"""The roof: the `aku` command, Label Studio's process, provisioning."""
