//go:build tools

// Package tools names the commands of Prometheus that the tests of metrics, boards and alerts build.
package tools

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
