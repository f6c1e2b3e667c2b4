//go:build tools

// Package tools names the command of Helm that the chart tests build.
package tools

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
