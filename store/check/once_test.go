package check_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// A onceTB lets what is made once for all tests use the helpers of a test.
type onceTB struct {
	testing.TB
	dirs []string
}

func (o *onceTB) Helper()                  {}
func (o *onceTB) Context() context.Context { return context.Background() }
func (o *onceTB) Fatal(args ...any)        { panic(args) }

func (o *onceTB) TempDir() string {
	dir, err := os.MkdirTemp("", "scale-check-test-")
	if err != nil {
		panic(err)
	}
	o.dirs = append(o.dirs, dir)
	return dir
}

func (o *onceTB) clean() {
	for _, d := range o.dirs {
		os.RemoveAll(d)
	}
}

func removeContents(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if err == nil {
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
	return err
}
