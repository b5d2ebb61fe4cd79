package main

// room is where the conversation is held, me who reads the page.
const (
	room = "harbour"
	me   = "Mara Lind"
)

// remembered is what the browser of somebody who was here before has kept: her
// name, and the rooms that she was in.
const remembered = `
	localStorage.setItem('sluice.name', JSON.stringify({ is: '` + me + `' }));
	sessionStorage.setItem('sluice.name', JSON.stringify({ is: '` + me + `' }));
	localStorage.setItem('sluice.rooms', JSON.stringify(['` + room + `', 'deploys', 'footbridge', 'lobby']));
`

// line is one thing that is said: by somebody on the page, or, without a name,
// by a program.
type line struct {
	name string
	kind string // type of the event; message if empty
	text string
	json bool
}

// talk happens at ten, whatever time it is (see clock in main.go).
var talk = []line{
	{name: "Ines Duarte", text: "Morning all. The tide runs early, so the east gate opens at 11:20."},
	{name: "Jonas Weber", text: "The school boats are due at a quarter past. Is that enough?"},
	{name: "Ines Duarte", text: "It is. The skippers know."},
	{name: me, text: "I can hold the footbridge until they are through."},
	{name: "Amina Okafor", text: "Please do! Thirty-one children, and one very excited dog."},
	{name: "Jonas Weber", text: "He has a life jacket?"},
	{name: "Jonas Weber", text: "Asking for the logbook."},
	{name: "Amina Okafor", text: "The best one of us all."},
	{kind: "gauge", text: `{"gate":"east","level":2.41}`, json: true},
	{text: "wind SW 4, visibility good"},
	{name: me, text: "Ready then. See you at the gate!"},
}
