//go:build never

// Package tools keeps the programs that infra/servers builds in go.mod, so that `go mod tidy` does not drop them.
package tools

import (
	_ "github.com/temporalio/cli/cmd/temporal"
	_ "go.temporal.io/server/cmd/server"
	_ "go.temporal.io/server/cmd/tools/sql"
)
