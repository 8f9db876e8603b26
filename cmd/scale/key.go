package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/store"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Show the public keys, or export the private ones encrypted",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	cmd.AddCommand(a.keyShowCommand(), a.keyExportCommand(), a.keyNameCommand())
	return cmd
}

func (a *app) keyShowCommand() *cobra.Command {
	var policyOnly bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the log's public key, the curators, and what to send to verifiers",
		Long: `Shows the log's public key (vkey), the curators whom the ledger admits, a C2SP
tlog-policy file that trusts this log, and a block to send to verifiers. Send it over
a channel that they trust: it is what their verification stands on.`,
		Example: `  scale key show
  scale key show --policy > scale.policy`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&policyOnly, "policy", false, "print only the policy file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		p, err := s.Policy(cmd.Context())
		if err != nil {
			return err
		}
		curators := make([]string, len(p.Curators))
		for i, k := range p.Curators {
			curators[i] = k.String()
		}
		vkey := s.VerifierKey()
		policy := fmt.Sprintf("log %s\nquorum none\n", vkey)
		switch {
		case a.json:
			return a.print(map[string]any{"vkey": vkey, "origin": s.Origin(), "curators": curators, "policy": policy})
		case policyOnly:
			return a.printf("%s", policy)
		}
		if err := a.printFields(field{"vkey", vkey}, field{"curators", strings.Join(curators, " ")}); err != nil {
			return err
		}
		flags := fmt.Sprintf("--key '%s'", vkey)
		for _, c := range curators {
			flags += " --curator " + c
		}
		return a.printf("\nA policy file, for --policy:\n\n%s\nFor those who verify:\n\n"+
			"  The proofs of %s are checked, without its store, by\n    scale verify PROOF DATA %s\n", policy, s.Origin(), flags)
	}
	return cmd
}

func (a *app) keyExportCommand() *cobra.Command {
	var out, passphraseFile string
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "export -o FILE",
		Short: "Write the private keys to a file, encrypted with a passphrase",
		Long: `Writes the keys of the log, of the curator and of private names to FILE (mode 0600) as a tar archive
encrypted with a passphrase, in the age format. Whoever has both can sign in the name
of this log. To put the keys back into a store:

  age -d FILE | tar -x -C STORE/keys`,
		Example: `  scale key export -o keys.age`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` to write")
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "read the passphrase from the first line of this `file`, not from the terminal")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace FILE if it exists")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.remote() {
			return usagef("key export is for a store on this machine, and not for --node: a node gives its keys to nobody")
		}
		if out == "" {
			return usagef("pass -o FILE: keys are not written to standard output")
		}
		if _, err := os.Lstat(out); err == nil && !overwrite {
			return fmt.Errorf("%s: %w", quote(out), fstree.ErrExists) // before asking for a passphrase
		}
		dir, err := a.existing(cmd.Context())
		if err != nil {
			return err
		}
		plain, err := readKeys(filepath.Join(dir, "keys"))
		if err != nil {
			return err
		}
		pass, err := a.passphrase(passphraseFile)
		if err != nil {
			return err
		}
		var sealed bytes.Buffer
		if err := encryptKeys(&sealed, plain, pass); err != nil {
			return err
		}
		return a.writeFile(cmd.Context(), out, 0o600, overwrite, func(w io.Writer) error {
			_, err := w.Write(sealed.Bytes())
			return err
		})
	}
	return cmd
}

// readKeys reads the key files of a store.
func readKeys(dir string) (map[string][]byte, error) {
	files := make(map[string][]byte)
	for _, name := range []string{"log.key", "curator.json", nameKeyFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if name == nameKeyFile && errors.Is(err, fs.ErrNotExist) {
			continue // made when it is first needed
		}
		if err != nil {
			return nil, fmt.Errorf("export keys: %w (%w)", store.ErrKeys, err)
		}
		files[name] = b
	}
	return files, nil
}

// encryptKeys writes an armored age file that holds a tar archive of the key files.
func encryptKeys(w io.Writer, files map[string][]byte, passphrase string) error {
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return fmt.Errorf("passphrase: %w", err)
	}
	aw := armor.NewWriter(w)
	ew, err := age.Encrypt(aw, r)
	if err != nil {
		return fmt.Errorf("encrypt keys: %w", err)
	}
	tw := tar.NewWriter(ew)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(files[name]))}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("encrypt keys: %w", err)
		}
		if _, err := tw.Write(files[name]); err != nil {
			return fmt.Errorf("encrypt keys: %w", err)
		}
	}
	return errors.Join(tw.Close(), ew.Close(), aw.Close())
}

// passphrase reads the passphrase from a file, or twice from the terminal.
func (a *app) passphrase(file string) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("passphrase: %w", err)
		}
		line, _, _ := strings.Cut(string(b), "\n")
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			return "", usagef("the first line of %s is empty: no passphrase", file)
		}
		return line, nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", usagef("there is no terminal to ask for a passphrase: pass --passphrase-file")
	}
	defer tty.Close()
	ask := func(prompt string) (string, error) {
		fmt.Fprint(tty, prompt)
		b, err := term.ReadPassword(int(tty.Fd()))
		fmt.Fprintln(tty)
		return string(b), err
	}
	first, err := ask("Passphrase for the exported keys: ")
	if err != nil {
		return "", fmt.Errorf("passphrase: %w", err)
	}
	second, err := ask("The same again: ")
	if err != nil {
		return "", fmt.Errorf("passphrase: %w", err)
	}
	if first == "" || first != second {
		return "", usagef("the passphrase is empty, or was not the same twice")
	}
	return first, nil
}
