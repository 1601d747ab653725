// Command build makes the project's images without a container engine.
//
// It writes OCI archives that a node's containerd imports, or pushes to a registry. Equal
// content gives equal digests on every machine. It builds Go programs when they are needed;
// Rust programs have to be there, because the caller knows their profile.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const usage = `usage: build VERB [flags] [NAME...]

  build     make OCI archives and print their paths
  list      print reference, digest and archive of each image (made when missing)
  push      write to a registry; needs --registry HOST/PREFIX; prints the pushed names
  programs  build Go programs ("fixtures" means those of the tests) and print their paths
  names     print the names of all images

Without a NAME a verb does all.
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// options are the flags after the verb.
type options struct {
	tag      string
	profile  string
	out      string
	registry string
	insecure bool
	names    []string
}

func parse(verb string, arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	flags.StringVar(&o.tag, "tag", fallback("IMAGE_TAG", "dev"), "tag of our own images; \"content\" makes it from the digest (env IMAGE_TAG)")
	flags.StringVar(&o.profile, "profile", fallback("PROFILE", "release"), "cargo profile of the Rust programs (env PROFILE)")
	flags.StringVar(&o.out, "out", "", "folder for archives (default: the cache)")
	flags.StringVar(&o.registry, "registry", os.Getenv("REGISTRY"), "host and prefix to push to (env REGISTRY)")
	flags.BoolVar(&o.insecure, "insecure", false, "speak plain HTTP to the registry")
	// Flags may stand before, between and after names.
	for rest := arguments; ; {
		if err := flags.Parse(rest); err != nil {
			return o, err
		}
		rest = flags.Args()
		if len(rest) == 0 {
			return o, nil
		}
		o.names, rest = append(o.names, rest[0]), rest[1:]
		if len(rest) == 0 {
			return o, nil
		}
	}
}

func fallback(variable, value string) string {
	if set := os.Getenv(variable); set != "" {
		return set
	}
	return value
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("no verb\n\n" + usage)
	}
	verb := arguments[0]
	o, err := parse(verb, arguments[1:])
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	w, err := newWorkshop(o.profile)
	if err != nil {
		return err
	}
	switch verb {
	case "build", "list":
		return w.eachImage(o, func(built builtImage) error {
			file, err := w.archive(built, o.out)
			if err != nil {
				return err
			}
			if verb == "build" {
				fmt.Println(file)
			} else {
				fmt.Println(built.reference(), built.digest, file)
			}
			return nil
		})
	case "push":
		if o.registry == "" {
			return errors.New("push needs --registry HOST/PREFIX")
		}
		return w.eachImage(o, func(built builtImage) error { return push(built, o) })
	case "programs":
		names, err := w.definitions.programNames(o.names)
		if err != nil {
			return err
		}
		for _, name := range names {
			file, err := w.program(name)
			if err != nil {
				return err
			}
			fmt.Println(file)
		}
		return nil
	case "names":
		names, err := w.definitions.imageNames(nil)
		fmt.Println(strings.Join(names, "\n"))
		return err
	default:
		return fmt.Errorf("there is no verb %q\n\n%s", verb, usage)
	}
}

func (w *workshop) eachImage(o options, do func(builtImage) error) error {
	names, err := w.definitions.imageNames(o.names)
	if err != nil {
		return err
	}
	for _, name := range names {
		built, err := w.build(name, o.tag)
		if err != nil {
			return err
		}
		if err := do(built); err != nil {
			return err
		}
	}
	return nil
}

// push writes the image below the prefix, under the last part of its own name.
func push(built builtImage, o options) error {
	where := fmt.Sprintf("%s/%s:%s", strings.TrimSuffix(o.registry, "/"), path.Base(built.repository), built.tag)
	strictness := []name.Option{}
	if o.insecure {
		strictness = append(strictness, name.Insecure)
	}
	reference, err := name.ParseReference(where, strictness...)
	if err != nil {
		return fmt.Errorf("pushing %s: %w", built.name, err)
	}
	progress("pushing %s", reference)
	if err := remote.Write(reference, built.image, remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("pushing %s: %w", reference, err)
	}
	fmt.Printf("%s %s\n", reference, built.digest)
	return nil
}
