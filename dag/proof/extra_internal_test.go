package proof

import (
	"strings"
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
		if got := d.manifest(limit, 0); (d.err == nil) != want || want && len(got) != 3 {
			t.Errorf("limit %d: %v, %v", limit, got, d.err)
		}
		if d = (decoder{b: b}); d.manifest(limit+3*100, 100) != nil != want {
			t.Errorf("limit %d and 100 for each leaf: %v", limit, d.err)
		}
	}
	// A path that no file has is not unfolded.
	long := decoder{b: appendManifest(nil, []dag.FileLeaf{{Kind: dag.KindDir, Path: strings.Repeat("x", dag.MaxPath+2)}})}
	if got := long.manifest(MaxProof, 0); got != nil || long.err == nil {
		t.Errorf("a long path: %v", long.err)
	}
}
