package proof

import (
	"testing"

	"github.com/koii-network/scale/dag"
)

func TestManifestLimit(t *testing.T) {
	leaves := []dag.FileLeaf{
		{Kind: dag.KindDir, Path: "0123456789/"},
		{Kind: dag.KindDir, Path: "0123456789/a/"},
		{Kind: dag.KindDir, Path: "0123456789/b/"},
	}
	b := appendManifest(nil, leaves)
	for limit, want := range map[int]bool{37: true, 36: false, 13: false} {
		d := decoder{b: b}
		if got := d.manifest(limit); (d.err == nil) != want || want && len(got) != 3 {
			t.Errorf("limit %d: %v, %v", limit, got, d.err)
		}
	}
}
