package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

// nameKeyFile holds the key of private names: 64 hexadecimal digits.
const nameKeyFile = "names.key"

// nameKey returns the key of private names: that of a file or, locally, of the store,
// which gets one if it has none and make is set.
func (a *app) nameKey(ctx context.Context, file string, make bool) (ledger.NameKey, error) {
	if file == "" {
		if a.remote() {
			return ledger.NameKey{}, usagef("private names of a node's datasets need --name-key: the node is not told the names")
		}
		dir, err := a.existing(ctx)
		if err != nil {
			return ledger.NameKey{}, err
		}
		file = filepath.Join(dir, "keys", nameKeyFile)
		if _, err := os.Lstat(file); make && errors.Is(err, fs.ErrNotExist) {
			if err := newNameKey(file); err != nil {
				return ledger.NameKey{}, err
			}
			a.note("made the key of private names, %s; back it up with: scale key export", quote(file))
		}
	}
	return readNameKey(file)
}

// newNameKey makes a key, unless another process is faster.
func newNameKey(file string) error {
	var k ledger.NameKey
	rand.Read(k[:]) // never fails
	// It appears whole or not at all, and takes no other's place.
	tmp, err := os.CreateTemp(filepath.Dir(file), nameKeyFile+".")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(hex.EncodeToString(k[:]) + "\n")
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readNameKey(file string) (k ledger.NameKey, err error) {
	f, err := os.Open(file)
	if err != nil {
		return k, fmt.Errorf("key of private names: %w", err)
	}
	defer f.Close() // read only
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return k, fmt.Errorf("key of private names: %s is not a file: %w", quote(file), store.ErrKeys)
	} else if st.Mode().Perm()&0o077 != 0 {
		return k, fmt.Errorf("key of private names: others can read %s (mode %04o); if nobody has, run: chmod 600 %[1]s: %[3]w", quote(file), st.Mode().Perm(), store.ErrKeys)
	}
	b, err := io.ReadAll(io.LimitReader(f, 128))
	if err != nil {
		return k, err
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(raw) != len(k) {
		return k, fmt.Errorf("key of private names: %s does not hold %d hexadecimal digits: %w", quote(file), 2*len(k), store.ErrKeys)
	}
	return ledger.NameKey(raw), nil
}

// privateNames replaces the names of inputs, if that is asked for.
func (a *app) privateNames(ctx context.Context, in []store.Input, f putFlags) error {
	if !f.privateName {
		if f.nameKey != "" {
			return usagef("--name-key goes with --private-name")
		}
		return nil
	}
	k, err := a.nameKey(ctx, f.nameKey, true)
	if err != nil {
		return err
	}
	for i := range in {
		if in[i].Name, err = ledger.PrivateName(in[i].Name, k.Salt(in[i].Name)); err != nil {
			return usagef("--private-name: %w", err)
		}
	}
	return nil
}

// openForPut opens what a put works on.
func (a *app) openForPut(cmd *cobra.Command, level compress.Level, in []store.Input, f putFlags) (engine, error) {
	if f.heal && (len(f.parents) > 0 || f.curatorKey != "") {
		return nil, usagef("--heal appends nothing: --parent and --curator-key do not go with it")
	}
	for i := range in {
		if in[i].Heal = f.heal; f.heal && f.name == "" && !f.privateName {
			in[i].Name = "" // under whichever name it is there
		}
	}
	return a.open(cmd, level)
}

func (a *app) keyNameCommand() *cobra.Command {
	var nameKey string
	cmd := &cobra.Command{
		Use:   "name NAME",
		Short: "Show the private name that stands for NAME, and what proves it",
		Long: `Shows what "scale put --private-name" records instead of NAME, and the salt. Whoever is given
NAME and the salt can see that the private name is that of NAME:

  printf 'scale private name v1\n%s\n%s\n' SALT NAME | sha256sum

gives what follows "private-". It tells nothing of other names.`,
		Example: `  scale get "$(scale key name photos --json | jq -r .private_name)" -o photos`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&nameKey, "name-key", "", "`file` with the key of private names (default STORE/keys/"+nameKeyFile+")")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		k, err := a.nameKey(cmd.Context(), nameKey, false)
		if err != nil {
			return err
		}
		salt := k.Salt(args[0])
		name, err := ledger.PrivateName(args[0], salt)
		if err != nil {
			return usagef("%w", err)
		}
		if a.json {
			return a.print(map[string]string{"name": args[0], "private_name": name, "salt": hex.EncodeToString(salt[:])})
		}
		return a.printFields(field{"private name", name}, field{"name", args[0]}, field{"salt", hex.EncodeToString(salt[:])})
	}
	return cmd
}
