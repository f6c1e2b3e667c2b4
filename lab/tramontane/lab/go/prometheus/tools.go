//go:build tools

// Package tools names the command of Prometheus that the metrics tests build.
package tools

import (
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
