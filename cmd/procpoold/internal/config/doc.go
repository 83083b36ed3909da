// Package config is what an operator tells procpoold: flags, environment and files, checked as a whole before anything of it holds.
//
// Every key stands once, in keys.go, with its kind and its default. Flags, the environment, the files, --print-config and the documentation
// all come from there, or are held to it by a test.
package config
