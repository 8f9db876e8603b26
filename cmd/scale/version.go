package main

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
)

// version is set by the linker.
var version string

// buildVersion is what the linker was told, or the version of the module.
func buildVersion() string {
	if b, ok := debug.ReadBuildInfo(); ok && version == "" {
		return b.Main.Version
	}
	return version
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of scale and of what it reads and writes",
		Args:  cobra.NoArgs,
	}
	cmd.RunE = func(*cobra.Command, []string) error {
		version := buildVersion()
		if a.json {
			return a.print(map[string]any{
				"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				"store_format": store.Format, "profiles": dag.ProfileNames(),
			})
		}
		return a.printFields(
			field{"scale", version},
			field{"go", runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH},
			field{"store format", store.Format},
			field{"profiles", strings.Join(dag.ProfileNames(), " ")},
		)
	}
	return cmd
}
