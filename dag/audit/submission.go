package audit

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/koii-network/scale/dag/ledger"
)

// A Submission is what a task node writes to a chain about an audit: one line of ASCII.
type Submission struct {
	Checkpoint [32]byte // see CheckpointHash
	Size       int64    // of the log at that checkpoint
	Seed       []byte
	Entry      int64 // index of the dataset's entry
	Count      int
	Response   [32]byte
}

// MaxSubmission is the most that a Koii task may submit, in bytes. A submission has at
// most 317.
const MaxSubmission = 512

// submissionMagic begins every submission and says its version.
const submissionMagic = "scale-audit-1"

func (s Submission) check() error {
	if err := (Challenge{Seed: s.Seed, Count: s.Count}).check(); err != nil {
		return err
	}
	if s.Size < 1 || s.Size > ledger.MaxSize || s.Entry < 0 || s.Entry >= s.Size {
		return fmt.Errorf("%w: entry %d of a log of size %d", ErrFormat, s.Entry, s.Size)
	}
	return nil
}

// Format returns the line.
func (s Submission) Format() (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %x %d %x %d %d %x", submissionMagic, s.Checkpoint, s.Size, s.Seed, s.Entry, s.Count, s.Response), nil
}

// ParseSubmission parses the line. It accepts exactly what Format returns.
func ParseSubmission(line string) (Submission, error) {
	bad := func(format string, args ...any) (Submission, error) {
		return Submission{}, fmt.Errorf("%w: submission: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	if len(line) > MaxSubmission {
		return bad("%d bytes, limit %d", len(line), MaxSubmission)
	}
	f := strings.Split(line, " ")
	if f[0] != submissionMagic {
		return bad("it does not begin with %s", submissionMagic)
	}
	if len(f) != 7 {
		return bad("%d fields, must be 7", len(f))
	}
	var s Submission
	hash := func(dst *[32]byte, text string) error {
		b, err := hex.DecodeString(text)
		if err == nil && len(b) != len(dst) {
			err = fmt.Errorf("%d bytes", len(b))
		}
		copy(dst[:], b)
		return err
	}
	if err := hash(&s.Checkpoint, f[1]); err != nil {
		return bad("hash of the checkpoint: %v", err)
	}
	var err error
	if s.Size, err = strconv.ParseInt(f[2], 10, 64); err != nil {
		return bad("size: %v", err)
	}
	if s.Seed, err = hex.DecodeString(f[3]); err != nil {
		return bad("seed: %v", err)
	}
	if s.Entry, err = strconv.ParseInt(f[4], 10, 64); err != nil {
		return bad("entry: %v", err)
	}
	if s.Count, err = strconv.Atoi(f[5]); err != nil {
		return bad("count: %v", err)
	}
	if err := hash(&s.Response, f[6]); err != nil {
		return bad("response: %v", err)
	}
	if again, err := s.Format(); err != nil {
		return Submission{}, err
	} else if again != line {
		return bad("not its one form")
	}
	return s, nil
}
