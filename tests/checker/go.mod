module patchbay.dev/tests/checker

go 1.25
