package fstree

import (
	"path"
	"strings"
	"testing"
)

func TestExclude(t *testing.T) {
	for _, tc := range []struct {
		glob       string
		yes        []string // a slash at the end: a directory
		no         []string
		meansWrong bool
	}{
		{glob: "*.o", yes: []string{"a.o", "x/y/a.o", "d.o/"}, no: []string{"a.oo", "a.o.c", "x.o/a"}},
		{glob: "*.o/", yes: []string{"d.o/", "x/d.o/"}, no: []string{"a.o"}},
		{glob: "/build", yes: []string{"build", "build/"}, no: []string{"x/build", "build/x"}},
		{glob: "a/b", yes: []string{"a/b"}, no: []string{"x/a/b", "a/b/c", "a", "b"}},
		{glob: "a/*", yes: []string{"a/b", "a/.b"}, no: []string{"a", "a/b/c"}},
		{glob: "a/**", yes: []string{"a", "a/b", "a/b/c"}, no: []string{"b/a", "ab"}},
		{glob: "**/x/y", yes: []string{"x/y", "a/x/y", "a/b/x/y", "x/x/y"}, no: []string{"x", "y", "x/y/z", "ax/y"}},
		{glob: "a/**/z", yes: []string{"a/z", "a/b/z", "a/b/c/z", "a/z/z"}, no: []string{"a", "z", "a/b"}},
		{glob: "**", yes: []string{"a", "a/b"}},
		{glob: "**/a/**/a/**/b", yes: []string{"a/a/b", "x/a/a/a/b"}, no: []string{"a/b", strings.Repeat("a/", 60) + "c"}},
		{glob: "[^a-c]?", yes: []string{"dx", "x/dd"}, no: []string{"ax", "d"}},
		{glob: `\*`, yes: []string{"*"}, no: []string{"a"}},
		{glob: "\xff*", yes: []string{"\xff\n"}, no: []string{"x\xff"}},
		{glob: "a[", meansWrong: true},
		{glob: "x/a[", meansWrong: true},
		{glob: "a//b", meansWrong: true},
		{glob: "/", meansWrong: true},
		{glob: "", meansWrong: true},
	} {
		ps, err := compilePatterns([]string{"never", tc.glob})
		if (err != nil) != tc.meansWrong {
			t.Errorf("pattern %q: %v", tc.glob, err)
		}
		tree := &Tree{exclude: ps}
		check := func(entries []string, want bool) {
			for _, e := range entries {
				e, dir := strings.CutSuffix(e, "/")
				if got := tree.excluded(e, path.Base(e), dir); got != want {
					t.Errorf("pattern %q on %q: %v", tc.glob, e, got)
				}
			}
		}
		check(tc.yes, true)
		check(tc.no, false)
	}
}

// A pattern that is accepted matches in bounded time; the path that it is, if
// it has no special characters.
func FuzzExclude(f *testing.F) {
	f.Add("*.o", "a.o")
	f.Add("a/**/b", "a/x/y/b")
	f.Add("**/**/**/a", strings.Repeat("a/", 50))
	f.Add("a/[a-", "a/b")
	f.Fuzz(func(t *testing.T, glob, entry string) {
		ps, err := compilePatterns([]string{glob})
		if err != nil {
			return
		}
		tree := &Tree{exclude: ps}
		tree.excluded(entry, path.Base(entry), true)
		literal := strings.Trim(glob, "/")
		if !strings.ContainsAny(glob, `*?[\`) && !tree.excluded(literal, path.Base(literal), true) {
			t.Errorf("%q does not match itself", glob)
		}
	})
}
