mod history;
mod single;
mod world;
