module patchbay.dev/tests/cluster

go 1.24.0
