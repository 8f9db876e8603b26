package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestInterruptible(t *testing.T) {
	want := noise(3 << 20)
	for name, r := range map[string]io.Reader{
		"whole":    bytes.NewReader(want),
		"halves":   iotest.HalfReader(bytes.NewReader(want)),
		"data+EOF": iotest.DataErrReader(bytes.NewReader(want)),
	} {
		got, err := io.ReadAll(newInterruptible(t.Context(), r))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
	}
	broken := errors.New("broken")
	got, err := io.ReadAll(newInterruptible(t.Context(), io.MultiReader(bytes.NewReader(want), iotest.ErrReader(broken))))
	if !errors.Is(err, broken) || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want all and the error", len(got), err)
	}
}

// TestInterruptibleGivesUp reads from a pipe that nobody writes to.
func TestInterruptibleGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	i := newInterruptible(ctx, r)
	cancel()
	if n, err := i.Read(make([]byte, 10)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %d, %v", n, err)
	}
}
