// A click on a clip plays it instead of its stills; a second click stops it.
for (const button of document.querySelectorAll("button.play")) {
  const film = button.parentElement.querySelector("video");
  button.hidden = false;
  button.addEventListener("click", () => {
    const playing = !film.hidden;
    film.hidden = playing;
    button.textContent = playing ? "▶ play" : "■ frames";
    if (playing) film.pause();
    else film.play();
  });
}
