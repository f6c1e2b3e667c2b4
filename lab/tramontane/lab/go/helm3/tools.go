//go:build tools

// Package tools names the command of Helm 3 that the chart tests build, besides Helm 4.
package tools

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
