// Package echo holds the generated code of the fixture's services.
package echo

//go:generate go run ../generate ../../proto echo.proto ..
